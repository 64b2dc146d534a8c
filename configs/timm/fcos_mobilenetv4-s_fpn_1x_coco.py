# tools/dist_train.sh configs/timm/fcos_mobilenetv4-s_fpn_1x_coco.py 8
# Not trained. With ResNet-50, mmdet publishes 36.6 AP.
_base_ = 'mmdet::fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py'
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
        pretrained=True,
    ),
    neck=dict(in_channels='auto'),
)
optim_wrapper = dict(
    optimizer=dict(_delete_=True, type='AdamW', lr=1e-4, weight_decay=0.05),
    paramwise_cfg=dict(_delete_=True, norm_decay_mult=0.0),
)
