# tools/dist_train.sh configs/stepnet/faster-rcnn_resnet-r101_fpn_2x_coco.py 8
# Not trained here. mmdet publishes 39.8 AP. This is the baseline of
# faster-rcnn_stepnet-r101_fpn_2x_coco.py.
_base_ = 'mmdet::faster_rcnn/faster-rcnn_r101_fpn_2x_coco.py'
custom_imports = dict(imports=['mmext'], allow_failed_imports=False)
