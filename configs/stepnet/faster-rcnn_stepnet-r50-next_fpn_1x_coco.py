# tools/dist_train.sh \
#     configs/stepnet/faster-rcnn_stepnet-r50-next_fpn_1x_coco.py 8
# Not trained. The adaptor sees x_{t+1} alone (the paper's Table 4).
_base_ = './faster-rcnn_stepnet-r50_fpn_1x_coco.py'
model = dict(backbone=dict(step_cfg=dict(inputs='next')))
