# Semantic FPN on ADE20K, AdamW: 8 GPUs x 4 images.
# bash tools/dist_train.sh \
#     configs/segmentation/fpn_starnet-s1_160k_ade20k-512x512.py 8
# Published: 36.0 mIoU (LSNet paper, Table 2; its schedule is not given).
# Not trained here.
_base_ = [
    'mmseg::_base_/models/fpn_r50.py',
    'mmseg::_base_/datasets/ade20k.py',
    'mmseg::_base_/default_runtime.py',
    'mmseg::_base_/schedules/schedule_160k.py',
]
custom_imports = dict(imports=['mmext'], allow_failed_imports=False)
model = dict(
    data_preprocessor=dict(size=(512, 512)),
    pretrained=None,
    backbone=dict(
        _delete_=True,
        type='StarNet',
        arch='s1',
        init_cfg=dict(
            type='Pretrained',
            checkpoint='https://github.com/ma-xu/Rewrite-the-Stars/releases/'
            'download/checkpoints_v1/starnet_s1.pth.tar',
        ),
    ),
    neck=dict(in_channels=[24, 48, 96, 192]),
    decode_head=dict(num_classes=150),
)
optim_wrapper = dict(
    optimizer=dict(_delete_=True, type='AdamW', lr=2e-4, weight_decay=1e-4),
)
# The base's ends at 1e-4, which is meant for SGD's 0.01.
param_scheduler = [
    dict(type='PolyLR', power=0.9, eta_min=0.0, end=160000, by_epoch=False)
]
auto_scale_lr = dict(enable=False, base_batch_size=32)
