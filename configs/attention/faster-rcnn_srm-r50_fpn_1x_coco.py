# tools/dist_train.sh configs/attention/faster-rcnn_srm-r50_fpn_1x_coco.py 8
# Not trained. No COCO result of SRM is published.
_base_ = [
    'mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py',
    '../_base_/backbones/attention.py',
]
custom_imports = dict(imports=['mmext'], allow_failed_imports=False)
model = dict(backbone=_base_.pop('attention').srm)
# No weight decay on the recalibration, as the authors train it.
optim_wrapper = dict(
    paramwise_cfg=dict(custom_keys={'.srm.': dict(decay_mult=0.0)}),
)
