# tools/dist_train.sh \
#     configs/stepnet/faster-rcnn_stepnet-r50-stage4_fpn_1x_coco.py 8
# Not trained. Lottery ticket: adaptors in the last stage alone.
_base_ = './faster-rcnn_stepnet-r50_fpn_1x_coco.py'
model = dict(backbone=dict(stage_with_step=(False, False, False, True)))
