# CamVid: 367 road scenes for training and 233 for testing, 480x360 pixels, at
# half of that. $MMEXT_DATA/camvid/{train,test}, class maps in *_labels.
data_root = '{{$MMEXT_DATA:data}}/camvid/'
camvid = dict(
    type='BaseSegDataset',
    data_root=data_root,
    metainfo=dict(
        classes=(
            *('sky', 'building', 'pole', 'road', 'pavement', 'tree'),
            *('sign', 'fence', 'car', 'pedestrian', 'bicyclist'),
        )
    ),
    img_suffix='.jpg',
    seg_map_suffix='.png',
    ignore_index=11,
)
train_dataloader = dict(
    batch_size=8,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        **camvid,
        data_prefix=dict(img_path='train', seg_map_path='train_labels'),
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='LoadAnnotations'),
            dict(
                type='RandomResize',
                scale=(240, 180),
                ratio_range=(1.0, 1.5),
                keep_ratio=True,
            ),
            dict(type='RandomCrop', crop_size=(176, 240)),
            dict(type='RandomFlip', prob=0.5),
            dict(type='PackSegInputs'),
        ],
    ),
)
test_dataloader = dict(
    batch_size=1,
    num_workers=1,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        **camvid,
        data_prefix=dict(img_path='test', seg_map_path='test_labels'),
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='Resize', scale=(240, 180), keep_ratio=True),
            dict(type='LoadAnnotations'),
            dict(type='PackSegInputs'),
        ],
    ),
)
test_evaluator = dict(type='IoUMetric', iou_metrics=['mIoU'], ignore_index=11)
test_cfg = dict()
