# One's own data in COCO format: $MMEXT_DATA names the folder (default: a few
# generated shapes, so that the config runs as it is), $MMEXT_CLASSES some of
# its categories, with commas (default: all). Paths, class names and their
# number are read from the JSON when the config is loaded; a data set that
# cannot train ends there, with what is wrong. See docs/custom_data.md.
_base_ = []
from mmext.checks.layouts import data_of_environment

data = data_of_environment()
num_classes = len(data['classes'])
metainfo = dict(classes=data['classes'])
custom_hooks = [dict(type='CheckDataHook')]

# Small data: scales and flips vary what there is; colours shift a little.
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(
        type='RandomChoiceResize',
        scales=[(1333, side) for side in (480, 560, 640, 720, 800)],
        keep_ratio=True,
    ),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PhotoMetricDistortion'),
    dict(type='PackDetInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(1333, 640), keep_ratio=True),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='PackDetInputs'),
]
train_dataloader = dict(
    batch_size=4,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    batch_sampler=dict(type='AspectRatioBatchSampler'),
    dataset=dict(
        type='CocoDataset',
        metainfo=metainfo,
        ann_file=data['ann_files']['train'],
        data_prefix=dict(img=data['img_dirs']['train']),
        filter_cfg=dict(filter_empty_gt=True, min_size=1),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=2,
    persistent_workers=True,
    drop_last=False,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='CocoDataset',
        metainfo=metainfo,
        ann_file=data['ann_files']['val'],
        data_prefix=dict(img=data['img_dirs']['val']),
        test_mode=True,
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(
    type='CocoMetric', ann_file=data['ann_files']['val'], metric='bbox'
)
test_evaluator = val_evaluator
