# tools/dist_train.sh configs/stepnet/fcos_stepnet-r50_fpn_1x_coco.py 8
# Not trained. With ResNet-50, mmdet publishes 36.6 AP.
_base_ = [
    'mmdet::fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py',
    '../_base_/backbones/stepnet.py',
]
custom_imports = dict(imports=['mmext'], allow_failed_imports=False)
model = dict(
    data_preprocessor=dict(  # the pixels of torchvision's weights
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
    ),
    backbone=_base_.pop('stepnet').r50,
)
