# tools/dist_train.sh configs/timm/rtmdet-ins-s_repvit-m1_8xb32-300e_coco.py 8
# Not trained. With CSPNeXt, mmdet publishes 44.0 box and 38.7 mask AP.
_base_ = 'mmdet::rtmdet/rtmdet-ins_s_8xb32-300e_coco.py'
custom_imports = dict(imports=['mmext'], allow_failed_imports=False)
model = dict(
    data_preprocessor=dict(  # timm's pixels: RGB
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
    ),
    backbone=dict(
        _delete_=True,
        type='TimmBackbone',
        name='repvit_m1.dist_in1k',
        out_indices=(1, 2, 3),
        pretrained=True,
    ),
    neck=dict(in_channels='auto'),
)
