# StarNet's recipe with its light augmentation: rand-m1-mstd0.5-inc1, no
# colour jitter.
_base_ = './imagenet_starnet.py'
bgr_mean = [103.53, 116.28, 123.675]
train_dataloader = dict(
    dataset=dict(
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(
                type='RandomResizedCrop',
                scale=224,
                backend='pillow',
                interpolation='bicubic',
            ),
            dict(type='RandomFlip', prob=0.5, direction='horizontal'),
            dict(
                type='RandAugment',
                policies='timm_increasing',
                num_policies=2,
                total_level=10,
                magnitude_level=1,
                magnitude_std=0.5,
                hparams=dict(
                    pad_val=[round(x) for x in bgr_mean],
                    interpolation='bicubic',
                ),
            ),
            dict(
                type='RandomErasing',
                erase_prob=0.25,
                mode='rand',
                max_area_ratio=1 / 3,
                fill_color=bgr_mean,
                fill_std=[57.375, 57.12, 58.395],
            ),
            dict(type='PackInputs'),
        ]
    ),
)
