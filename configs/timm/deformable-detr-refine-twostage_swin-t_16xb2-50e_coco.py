# tools/dist_train.sh configs/timm/\
# deformable-detr-refine-twostage_swin-t_16xb2-50e_coco.py 16
# Not trained. With ResNet-50, mmdet publishes 47.0 AP.
_base_ = (
    'mmdet::deformable_detr/'
    'deformable-detr-refine-twostage_r50_16xb2-50e_coco.py'
)
custom_imports = dict(imports=['mmext'], allow_failed_imports=False)
model = dict(
    backbone=dict(
        _delete_=True,
        type='TimmBackbone',
        name='swin_tiny_patch4_window7_224.ms_in1k',
        out_indices=(1, 2, 3),
        drop_path_rate=0.1,
        pretrained=True,
    ),
    neck=dict(in_channels='auto'),
)
