# UperNet with ResNet-18 on CamVid, from random weights.
# python tools/train.py configs/evidence/upernet_resnet18_camvid.py
# Result: docs/evidence.md.
_base_ = './fpn_resnet18_camvid.py'
# As mmseg's upernet_r50.py, at the width of the FPN and without the second
# head.
model = dict(
    neck=None,
    decode_head=dict(
        _delete_=True,
        type='UPerHead',
        in_channels=[64, 128, 256, 512],
        in_index=[0, 1, 2, 3],
        pool_scales=(1, 2, 3, 6),
        channels=64,
        dropout_ratio=0.1,
        num_classes=11,
        norm_cfg=dict(type='BN'),
        align_corners=False,
        ignore_index=11,
        loss_decode=dict(type='CrossEntropyLoss', use_sigmoid=False),
    ),
)
