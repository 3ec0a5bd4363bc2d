# SPDX-License-Identifier: Apache-2.0
"""
Keys with names, one for each consumer, beside the three keys of ``key_file.json``.

``scopes``      parse the scopes of a key, and decide what they allow
``records``     :class:`~twisted_serve.auth.named.records.NamedKey`: one key of a store, without its secret
``collection``  the keys of a store as one value
``codec``       read and write the format of the file
``store``       :class:`~twisted_serve.auth.named.store.KeyStore`: the file, changed by transactions
``secrets``     make the secret of a key, and recognise one that is mistyped
``limits``      how many requests of a key there may be: in a minute, at the same time
``addresses``   recognise the first use of a key from an address
``live``        the keys that a server accepts now, found by their secrets
"""
