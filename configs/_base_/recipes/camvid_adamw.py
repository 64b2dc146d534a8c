# AdamW on CamVid: 20 epochs of one cycle in bfloat16, from random weights.
_base_ = [
    'mmseg::_base_/models/fpn_r50.py',
    'mmseg::_base_/default_runtime.py',
    '../datasets/camvid.py',
]
custom_imports = dict(imports=['mmext'], allow_failed_imports=False)
model = dict(
    data_preprocessor=dict(size=(176, 240), seg_pad_val=11),
    pretrained=None,
    neck=dict(out_channels=64),
    decode_head=dict(
        in_channels=[64] * 4,
        channels=64,
        num_classes=11,
        norm_cfg=dict(type='BN'),
        ignore_index=11,
    ),
)
train_cfg = dict(by_epoch=True, max_epochs=20)
optim_wrapper = dict(
    type='AmpOptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-3, weight_decay=0.05),
    paramwise_cfg=dict(norm_decay_mult=0.0, bias_decay_mult=0.0),
)
param_scheduler = dict(
    type='OneCycleLR',
    eta_max=1e-3,
    total_steps=20,
    by_epoch=True,
    convert_to_iter_based=True,
)
default_hooks = dict(
    checkpoint=dict(type='CheckpointHook', interval=1, max_keep_ckpts=1),
    logger=dict(type='LoggerHook', interval=20),
)
log_processor = dict(by_epoch=True)
