# tools/dist_train.sh configs/timm/mask2former_swin-t_8xb2-lsj-50e_coco.py 8
# Not trained. With ResNet-50, mmdet publishes 45.7 box and 42.9 mask AP.
_base_ = 'mmdet::mask2former/mask2former_r50_8xb2-lsj-50e_coco.py'
custom_imports = dict(imports=['mmext'], allow_failed_imports=False)
model = dict(
    backbone=dict(
        _delete_=True,
        type='TimmBackbone',
        name='swin_tiny_patch4_window7_224.ms_in1k',
        drop_path_rate=0.1,
        pretrained=True,
    ),
    panoptic_head=dict(in_channels='auto'),
)
