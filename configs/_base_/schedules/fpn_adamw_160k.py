# AdamW for Semantic FPN on ADE20K, 8 GPUs x 4 images.
_base_ = 'mmseg::_base_/schedules/schedule_160k.py'
optim_wrapper = dict(
    optimizer=dict(_delete_=True, type='AdamW', lr=2e-4, weight_decay=1e-4),
)
# The base ends at a rate of 1e-4, which is meant for SGD at 0.01.
param_scheduler = [
    dict(type='PolyLR', power=0.9, eta_min=0.0, end=160000, by_epoch=False)
]
auto_scale_lr = dict(enable=False, base_batch_size=32)
