# Segmentation for 4000 iterations of AdamW, for own data.
_base_ = './seg_600i.py'
train_cfg = dict(max_iters=4000, val_interval=500)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, end=100),
    dict(type='CosineAnnealingLR', T_max=4000, by_epoch=False),
]
optim_wrapper = dict(optimizer=dict(lr=3e-4))
default_hooks = dict(
    checkpoint=dict(interval=500, save_best='mIoU', max_keep_ckpts=2)
)
