# Nuclei: 200 micrographs, 256 to 640 pixels wide, of up to 86 cell nuclei
# with masks. $MMEXT_DATA names the folder that contains nuclei/ (default:
# data).
_base_ = './coco_splits.py'
data_root = '{{$MMEXT_DATA:data}}/nuclei/'
metainfo = dict(classes=('nucleus',))

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    # No resizing: half of the nuclei are narrower than 17 pixels.
    dict(type='RandomCrop', crop_size=(256, 256), recompute_bbox=True),
    # A crop can remove a mask completely, and a box of width 0 gives a loss
    # of NaN.
    dict(type='FilterAnnotations', min_gt_bbox_wh=(2, 2)),
    # A micrograph has no up or down.
    dict(
        type='RandomFlip',
        prob=[0.25, 0.25, 0.25],
        direction=['horizontal', 'vertical', 'diagonal'],
    ),
    dict(type='PackDetInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale_factor=1.0, keep_ratio=True),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(type='PackDetInputs'),
]

dataset = dict(data_root=data_root, metainfo=metainfo)
train_dataloader = dict(dataset=dict(dataset, pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(dataset, pipeline=test_pipeline))
test_dataloader = val_dataloader
val_evaluator = dict(
    ann_file=data_root + 'annotations/instances_val.json',
    metric=['bbox', 'segm'],
)
test_evaluator = val_evaluator
