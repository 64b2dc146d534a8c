# python tools/analysis_tools/orthogonality_effect.py \
#     configs/theory/orthogonality_resnet_digits.py
# Result: docs/orthogonality.md.
_base_ = [
    '../_base_/models/resnet18_digits.py',
    '../_base_/datasets/digits.py',
]
custom_imports = dict(imports=['mmext'], allow_failed_imports=False)
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
epochs = 12
batch_size = 50
lr = 5e-3
