# AdamW for UperNet on ADE20K: Swin's recipe, which DWNet's authors use.
_base_ = 'mmseg::_base_/schedules/schedule_160k.py'
# This activates mmext's guards in the tools of mmdet and mim too.
runner_type = 'ReliableRunner'
optim_wrapper = dict(
    _delete_=True,
    type='OptimWrapper',
    optimizer=dict(
        type='AdamW', lr=6e-5, betas=(0.9, 0.999), weight_decay=0.01
    ),
    paramwise_cfg=dict(custom_keys={'norm': dict(decay_mult=0.0)}),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-6, by_epoch=False, end=1500),
    dict(
        type='PolyLR',
        eta_min=0.0,
        power=1.0,
        begin=1500,
        end=160000,
        by_epoch=False,
    ),
]
auto_scale_lr = dict(enable=False, base_batch_size=16)
