# tools/dist_train.sh configs/timm/faster-rcnn_swin-t_fpn_1x_coco.py 8
# Not trained. With ResNet-50, mmdet publishes 37.4 AP.
_base_ = 'mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py'
custom_imports = dict(imports=['mmext'], allow_failed_imports=False)
model = dict(
    backbone=dict(
        _delete_=True,
        type='TimmBackbone',
        name='swin_tiny_patch4_window7_224.ms_in1k',
        drop_path_rate=0.1,
        pretrained=True,
    ),
    neck=dict(in_channels='auto'),
)
optim_wrapper = dict(
    optimizer=dict(_delete_=True, type='AdamW', lr=1e-4, weight_decay=0.05),
)
