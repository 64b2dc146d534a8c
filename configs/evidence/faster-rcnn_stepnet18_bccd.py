# Faster R-CNN on blood cells, from StepNet-18 of CIFAR-10.
# python tools/train.py configs/evidence/faster-rcnn_stepnet18_bccd.py
# Result: docs/evidence.md.
_base_ = './faster-rcnn_resnet18_bccd.py'
model = dict(
    backbone=dict(
        stage_with_step=(True, True, True, True),
        init_cfg=dict(checkpoint='work_dirs/stepnet18_cifar10-64/epoch_6.pth'),
    )
)
