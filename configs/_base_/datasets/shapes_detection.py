# Drawn shapes: 5 classes, 256x192 pixels, boxes and masks. They are generated
# on the first use into $MMEXT_CACHE (default: ~/.cache/mmext); see
# mmext/datasets/shapes/generate.py.
scale = (256, 192)
shapes = dict(type='ShapesDataset', num_train=320, num_val=80, seed=0)

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='Resize', scale=scale, keep_ratio=True),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackDetInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=scale, keep_ratio=True),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='PackDetInputs'),
]

# The images are small: a worker costs more time than it saves.
train_dataloader = dict(
    batch_size=4,
    num_workers=0,
    persistent_workers=False,
    sampler=dict(type='DefaultSampler', shuffle=True),
    batch_sampler=dict(type='AspectRatioBatchSampler'),
    dataset=dict(split='train', pipeline=train_pipeline, **shapes),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=0,
    persistent_workers=False,
    drop_last=False,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        split='val', test_mode=True, pipeline=test_pipeline, **shapes
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(type='ShapesMetric', metric='bbox')
test_evaluator = val_evaluator
