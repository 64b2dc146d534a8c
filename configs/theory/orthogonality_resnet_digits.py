# Licensed under the Apache License, Version 2.0. See LICENSE.
# python tools/analysis_tools/orthogonality_effect.py \
#     configs/theory/orthogonality_resnet_digits.py
# Result: docs/orthogonality.md.
custom_imports = dict(imports=['mmext'], allow_failed_imports=False)

backbone = dict(
    type='ResNet',
    depth=18,
    in_channels=1,
    base_channels=32,
    num_stages=2,
    strides=(1, 2),
    dilations=(1, 1),
    out_indices=(1,),
    norm_eval=False,
)
channels = 64
layers = 'backbone.layer.*conv[12]'
terms = {
    'self-orthogonality': dict(
        regularizer=dict(type='SelfOrthogonality', max_samples=1024),
        weight=1.0,
    ),
    'soft orthogonality': dict(
        regularizer=dict(type='SoftOrthogonality'), weight=0.01
    ),
}
scale = 4
train_images = 1000
epochs = 12
batch_size = 50
lr = 5e-3
seeds = [0, 1, 2]
