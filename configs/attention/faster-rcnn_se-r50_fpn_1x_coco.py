# tools/dist_train.sh configs/attention/faster-rcnn_se-r50_fpn_1x_coco.py 8
# Not trained. Published: 37.7 AP (ECA-Net, Table 5), from ImageNet
# weights with the attention. This config starts from plain ResNet weights.
_base_ = [
    'mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py',
    '../_base_/backbones/attention.py',
]
custom_imports = dict(imports=['mmext'], allow_failed_imports=False)
model = dict(backbone=_base_.pop('attention').se)
