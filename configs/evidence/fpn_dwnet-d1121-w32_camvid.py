# Semantic FPN with a small DWNet on CamVid, from random weights.
# python tools/train.py configs/evidence/fpn_dwnet-d1121-w32_camvid.py
# Result: docs/evidence.md.
_base_ = '../_base_/recipes/camvid_adamw.py'
model = dict(
    backbone=dict(
        _delete_=True,
        type='DWNet',
        arch=dict(
            embed_dims=32,
            depths=(1, 1, 2, 1),
            channels_per_group=8,
            drop_path_rate=0.0,
        ),
        pad_to_window=False,
    ),
    neck=dict(in_channels=[32, 64, 128, 256]),
)
