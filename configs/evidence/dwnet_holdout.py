# For the recipe of DWNet: tests on 5,000 training images.
# python tools/train.py configs/evidence/dwnet_holdout.py
# Result: docs/evidence.md.
_base_ = './dwnet-d22-w32_cifar10.py'
tenth = dict(type='KFoldDataset', num_splits=10, seed=0)
train_dataloader = dict(
    dataset=dict(
        _delete_=True, dataset={{_base_.train_dataloader.dataset}}, **tenth
    )
)
test_dataloader = dict(
    dataset=dict(
        _delete_=True,
        test_mode=True,
        dataset=dict(
            type='CustomDataset',
            data_prefix={{_base_.train_dataloader.dataset.data_prefix}},
            pipeline={{_base_.test_dataloader.dataset.pipeline}},
        ),
        **tenth,
    )
)
