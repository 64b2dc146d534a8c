# Semantic FPN on own class maps, from ImageNet weights. Set the folders, the
# classes and the sizes in configs/_base_/datasets/custom_seg.py.
# python tools/train.py configs/custom/fpn_starnet-s1_4k_custom-seg.py
# Not trained here.
_base_ = [
    'mmseg::_base_/models/fpn_r50.py',
    'mmseg::_base_/default_runtime.py',
    '../_base_/datasets/custom_seg.py',
    '../_base_/schedules/seg_4k.py',
    '../_base_/backbones/starnet.py',
]
custom_imports = dict(imports=['mmext'], allow_failed_imports=False)
model = dict(
    _base_.pop('starnet').s1,
    data_preprocessor=dict(
        size=_base_.crop_size, seg_pad_val=_base_.ignore_index
    ),
    pretrained=None,
    decode_head=dict(
        num_classes=_base_.num_classes,
        ignore_index=_base_.ignore_index,
        norm_cfg=dict(type='BN'),
    ),
)
