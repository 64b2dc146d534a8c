# StarNet-s1 on ImageNet with the authors' command: 8 GPUs x 256 images, AdamW
# 3e-3, weight decay 0.025, light augmentation. Mixup, erasing, smoothing and
# warm-up are their script's defaults.
# bash tools/dist_train.sh \
#     configs/classification/starnet-s1_8xb256-300e_in1k.py 8
# Published: 73.5 top-1 (StarNet paper, Table 6). Not trained here.
_base_ = '../_base_/recipes/imagenet_starnet_light.py'
custom_imports = dict(imports=['mmext'], allow_failed_imports=False)
model = dict(
    backbone=dict(
        _delete_=True,
        type='StarNet',
        arch='s1',
        out_indices=(3,),
        final_norm=True,
    ),
    head=dict(in_channels=192),
    train_cfg=dict(
        augments=[
            dict(type='Mixup', alpha=0.8),
            dict(type='CutMix', alpha=0.2),
        ]
    ),
)
optim_wrapper = dict(optimizer=dict(lr=3e-3, weight_decay=0.025))
