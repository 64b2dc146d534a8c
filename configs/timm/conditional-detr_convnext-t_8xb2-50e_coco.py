# tools/dist_train.sh configs/timm/\
# conditional-detr_convnext-t_8xb2-50e_coco.py 8
# Not trained. With ResNet-50, mmdet publishes 40.9 AP.
_base_ = 'mmdet::conditional_detr/conditional-detr_r50_8xb2-50e_coco.py'
custom_imports = dict(imports=['mmext'], allow_failed_imports=False)
model = dict(
    backbone=dict(
        _delete_=True,
        type='TimmBackbone',
        name='convnext_tiny.fb_in1k',
        out_indices=-1,
        drop_path_rate=0.1,
        pretrained=True,
    ),
    neck=dict(in_channels='auto'),
)
