# tools/dist_train.sh configs/timm/dino-4scale_convnext-t_8xb2-12e_coco.py 8
# Not trained. With ResNet-50, mmdet publishes 49.0 AP.
_base_ = 'mmdet::dino/dino-4scale_r50_8xb2-12e_coco.py'
custom_imports = dict(imports=['mmext'], allow_failed_imports=False)
model = dict(
    backbone=dict(
        _delete_=True,
        type='TimmBackbone',
        name='convnext_tiny.fb_in1k',
        out_indices=(1, 2, 3),
        drop_path_rate=0.1,
        pretrained=True,
    ),
    neck=dict(in_channels='auto'),
)
