# tools/dist_train.sh \
#     configs/stepnet/faster-rcnn_stepnet-r50-first-blocks_fpn_1x_coco.py 8
# Not trained. Lottery ticket: an adaptor in the first block of each stage.
_base_ = './faster-rcnn_stepnet-r50_fpn_1x_coco.py'
model = dict(backbone=dict(step_blocks=[[0], [0], [0], [0]]))
