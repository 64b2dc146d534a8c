# Swin of DWNet's size: local attention in windows of 5x5.
# python tools/train.py configs/evidence/swin-d22-w32_cifar10.py
# Result: docs/evidence.md.
_base_ = './dwnet-d22-w32_cifar10.py'
model = dict(
    backbone=dict(
        _delete_=True,
        type='SwinTransformer',
        arch=dict(embed_dims=32, depths=(2, 2), num_heads=(4, 8)),
        img_size=32,
        patch_size=2,
        window_size=5,
        drop_path_rate=0.0,
        out_indices=(1,),
    )
)
