# Semantic FPN on ADE20K, AdamW: 8 GPUs x 4 images.
# bash tools/dist_train.sh \
#     configs/segmentation/fpn_starnet-s1_160k_ade20k-512x512.py 8
# Published: 36.0 mIoU (LSNet paper, Table 2; its schedule is not given).
# Not trained here.
_base_ = [
    'mmseg::_base_/models/fpn_r50.py',
    'mmseg::_base_/datasets/ade20k.py',
    'mmseg::_base_/default_runtime.py',
    '../_base_/schedules/fpn_adamw_160k.py',
    '../_base_/backbones/starnet.py',
]
custom_imports = dict(imports=['mmext'], allow_failed_imports=False)
model = dict(
    data_preprocessor=dict(size=(512, 512)),
    pretrained=None,
    backbone=dict(_base_.pop('starnet').s1.backbone, norm_eval=False),
    neck=dict(in_channels=[24, 48, 96, 192]),
    decode_head=dict(num_classes=150),
)
