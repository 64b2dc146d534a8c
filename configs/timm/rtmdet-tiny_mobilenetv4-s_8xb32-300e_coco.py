# tools/dist_train.sh configs/timm/\
# rtmdet-tiny_mobilenetv4-s_8xb32-300e_coco.py 8
# Not trained. With CSPNeXt, mmdet publishes 40.9 AP.
_base_ = 'mmdet::rtmdet/rtmdet_tiny_8xb32-300e_coco.py'
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
        name='mobilenetv4_conv_small.e2400_r224_in1k',
        out_indices=(2, 3, 4),
        pretrained=True,
    ),
    neck=dict(in_channels='auto'),
)
