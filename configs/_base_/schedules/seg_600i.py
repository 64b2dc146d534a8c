# Segmentation for 600 iterations, ten minutes on a CPU.
# This activates mmext's guards in the tools of mmdet and mim too.
runner_type = 'ReliableRunner'
train_cfg = dict(type='IterBasedTrainLoop', max_iters=600, val_interval=150)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-3, weight_decay=0.01),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, end=50),
    dict(type='CosineAnnealingLR', T_max=600, by_epoch=False),
]
default_hooks = dict(
    checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=150),
    logger=dict(type='LoggerHook', interval=10, log_metric_by_epoch=False),
)
