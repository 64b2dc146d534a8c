# tools/dist_train.sh configs/timm/rtmdet-s_fastvit-t8_8xb32-300e_coco.py 8
# Not trained. With CSPNeXt, mmdet publishes 44.5 AP.
_base_ = 'mmdet::rtmdet/rtmdet_s_8xb32-300e_coco.py'
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
        name='fastvit_t8.apple_in1k',
        out_indices=(1, 2, 3),
        pretrained=True,
    ),
    neck=dict(in_channels='auto'),
)
