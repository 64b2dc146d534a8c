# StepNet-ResNet-101 on ImageNet: 100 epochs, 8 GPUs x 32 images, as the
# attention papers train. Not trained: no pre-trained StepNet is public.
# bash tools/dist_train.sh \
#     configs/classification/stepnet-r101_8xb32-100e_in1k.py 8
_base_ = 'mmpretrain::resnet/resnet101_8xb32_in1k.py'
custom_imports = dict(imports=['mmext'], allow_failed_imports=False)
model = dict(
    backbone=dict(
        _delete_=True,
        type='StepNetResNet',
        depth=101,
        out_indices=(3,),
        style='pytorch',
        norm_eval=False,
    ),
)
