# bash tools/dist_train.sh \
#     configs/classification/dwnet-base-inhomogeneous_8xb128-300e_in1k.py 8
# Not trained. The authors publish no ImageNet figure for this form.
_base_ = './dwnet-base_8xb128-300e_in1k.py'
model = dict(backbone=dict(dynamic='inhomogeneous'))
