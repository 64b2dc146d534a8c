# StepNet with adaptors in one block of each stage (lottery ticket).
# python tools/train.py configs/evidence/resnet56-stepnet-few_cifar10.py
# Result: docs/evidence.md.
_base_ = './resnet56-stepnet_cifar10.py'
model = dict(backbone=dict(step_blocks=[[4], [4], [4]]))
