# tools/dist_train.sh \
#     configs/stepnet/faster-rcnn_stepnet-r50-sigmoid_fpn_1x_coco.py 8
# Not trained. The step is sigmoid(z) from the start, as in the paper's other
# attention layers, and no longer 1 there.
_base_ = './faster-rcnn_stepnet-r50_fpn_1x_coco.py'
model = dict(backbone=dict(step_cfg=dict(start='paper')))
