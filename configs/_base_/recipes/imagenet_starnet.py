# The training script of StarNet and DemoNet: Swin's recipe at 2048 images,
# five epochs of warm-up, a cosine to 1e-5. The script's ten more epochs at
# 1e-5 are left out.
_base_ = './imagenet_swin.py'
train_dataloader = dict(batch_size=256)
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
