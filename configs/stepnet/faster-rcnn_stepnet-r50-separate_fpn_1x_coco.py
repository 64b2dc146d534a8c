# tools/dist_train.sh \
#     configs/stepnet/faster-rcnn_stepnet-r50-separate_fpn_1x_coco.py 8
# Not trained. A branch for each state, in place of concatenated (our
# reading of the alternatives in the paper's Fig. 5).
_base_ = './faster-rcnn_stepnet-r50_fpn_1x_coco.py'
model = dict(backbone=dict(step_cfg=dict(fusion='separate')))
