# tools/dist_train.sh configs/stepnet/faster-rcnn_stepnet-r101_fpn_2x_coco.py 8
# Not trained. The paper reports +3.0 AP over its ResNet-101, without the
# schedule.
_base_ = [
    './faster-rcnn_stepnet-r50_fpn_2x_coco.py',
    '../_base_/backbones/stepnet.py',
]
model = dict(backbone=_base_.pop('stepnet').r101)
