# Own class maps for semantic segmentation: for every image a PNG file of the
# same name whose pixels are the index of their class, or `ignore_index`.
data_root = 'data/custom_seg/'
data_prefix = dict(
    train=dict(img_path='images/train', seg_map_path='maps/train'),
    val=dict(img_path='images/val', seg_map_path='maps/val'),
)
img_suffix = '.jpg'
# Names in the order of the indices. None of them is special: if index 0 is the
# background and shall not be learned, give its pixels `ignore_index`.
classes = ('background', 'object')
num_classes = len(classes)
palette = [(80, 80, 80), (220, 60, 60)]  # colours of drawn predictions
ignore_index = 255  # pixels that are neither learned nor counted
crop_size = (512, 512)  # height and width in training
scale = (2048, 512)  # longest and shortest side of resized images

settings = dict(
    type='BaseSegDataset',
    data_root=data_root,
    metainfo=dict(classes=classes, palette=palette),
    img_suffix=img_suffix,
    seg_map_suffix='.png',
    ignore_index=ignore_index,
)
train_dataloader = dict(
    batch_size=4,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(
        **settings,
        data_prefix=data_prefix['train'],
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='LoadAnnotations'),
            dict(
                type='RandomResize',
                scale=scale,
                ratio_range=(0.5, 2.0),
                keep_ratio=True,
            ),
            dict(
                type='RandomCrop',
                crop_size=crop_size,
                cat_max_ratio=0.75,
                ignore_index=ignore_index,
            ),
            dict(type='RandomFlip', prob=0.5),
            dict(type='PhotoMetricDistortion'),
            dict(type='PackSegInputs'),
        ],
    ),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        **settings,
        data_prefix=data_prefix['val'],
        test_mode=True,
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='Resize', scale=scale, keep_ratio=True),
            dict(type='LoadAnnotations'),
            dict(type='PackSegInputs'),
        ],
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(
    type='IoUMetric', iou_metrics=['mIoU'], ignore_index=ignore_index
)
test_evaluator = val_evaluator
