# Mask R-CNN on cell nuclei, from StepNet-18 of CIFAR-10.
# python tools/train.py configs/evidence/mask-rcnn_stepnet18_nuclei.py
# Result: docs/evidence.md.
_base_ = './mask-rcnn_resnet18_nuclei.py'
model = dict(
    backbone=dict(
        stage_with_step=(True, True, True, True),
        init_cfg=dict(checkpoint='work_dirs/stepnet18_cifar10-64/epoch_6.pth'),
    )
)
