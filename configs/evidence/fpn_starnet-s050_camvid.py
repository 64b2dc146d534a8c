# Semantic FPN with StarNet-s050 on CamVid, from random weights.
# python tools/train.py configs/evidence/fpn_starnet-s050_camvid.py
# Result: docs/evidence.md.
_base_ = '../_base_/recipes/camvid_adamw.py'
model = dict(
    backbone=dict(_delete_=True, type='StarNet', arch='s050'),
    neck=dict(in_channels=[16, 32, 64, 128]),
)
