# UperNet with StepNet-18 on CamVid, from random weights.
# python tools/train.py configs/evidence/upernet_stepnet18_camvid.py
# Result: docs/evidence.md.
_base_ = './upernet_resnet18_camvid.py'
model = dict(backbone=dict(stage_with_step=(True, True, True, True)))
