# tools/dist_train.sh \
#     configs/demonet/faster-rcnn_demonet-d12-w192-sum_sfp_1x_coco.py 8
# Not trained. The comparison's other network: a sum in place of the product.
_base_ = './faster-rcnn_demonet-d12-w192-star_sfp_1x_coco.py'
model = dict(backbone=dict(operation='sum'))
