# As StarNet's and DemoNet's training script: 2048 images, five epochs of
# warm-up, a cosine to 1e-5. Its ten more epochs at 1e-5 are left out.
_base_ = 'mmpretrain::_base_/schedules/imagenet_bs1024_adamw_swin.py'
param_scheduler = [
    dict(
        type='LinearLR',
        start_factor=1e-3,
        by_epoch=True,
        end=5,
        convert_to_iter_based=True,
    ),
    dict(type='CosineAnnealingLR', eta_min=1e-5, by_epoch=True, begin=5),
]
auto_scale_lr = dict(base_batch_size=2048)
