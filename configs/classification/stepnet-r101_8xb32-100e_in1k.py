# StepNet-ResNet-101 on ImageNet: 100 epochs, 8 GPUs x 32 images, as the
# attention papers train. Not trained: no pre-trained StepNet is public.
# bash tools/dist_train.sh \
#     configs/classification/stepnet-r101_8xb32-100e_in1k.py 8
_base_ = './stepnet-r50_8xb32-100e_in1k.py'
model = dict(backbone=dict(depth=101))
