# SPDX-License-Identifier: Apache-2.0
"""
Authorize requests by a `twisted.cred` portal: users with names and passwords, sent as HTTP Basic credentials.

The portal's checkers are the application's.  Its realm gives avatars that provide `IModelUser`; `ModelRealm` is one.
"""

from __future__ import annotations

from base64 import b64decode
from binascii import Error as NotBase64
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TypeAlias, cast

from attrs import field, frozen
from twisted.cred.credentials import UsernamePassword
from twisted.cred.error import LoginDenied, Unauthorized
from twisted.cred.portal import IRealm, Portal
from zope.interface import Attribute, Interface, implementer

from twisted_serve.interfaces import AccessRequest, IAuthorizer, Principal, Refusal, TokenKind

__all__ = ["IModelUser", "ModelRealm", "ModelUser", "PortalAuthorizer", "ScopesOf"]

# In bytes of the encoded credentials; a client cannot make a checker hash more.
_LONGEST = 1024

_INFERENCE = frozenset({TokenKind.INFERENCE})

#: The scopes of users: by name, or a function of the name.
ScopesOf: TypeAlias = "Mapping[str, Collection[TokenKind]] | Callable[[str], Collection[TokenKind]]"


def _frozen(scopes: Collection[TokenKind]) -> frozenset[TokenKind]:
    return frozenset(scopes)


class IModelUser(Interface):
    """A user of a model server: the avatar that `PortalAuthorizer` asks a realm for."""

    name: str = Attribute("The name of the principal.")

    def may(asked: AccessRequest) -> bool:
        """Return whether the user may do this."""


@implementer(IModelUser)
@frozen
class ModelUser:
    """
    A user who may do everything of certain scopes.

    :ivar scopes: By default inference alone.
    """

    name: str
    scopes: frozenset[TokenKind] = field(default=_INFERENCE, converter=_frozen)

    def may(self, asked: AccessRequest) -> bool:
        """Return whether the operation's scope is one of the user's."""
        return asked.scope in self.scopes


@implementer(IRealm)
class ModelRealm:
    """
    A realm in which each user has scopes.

    :param scopes: The scopes of each user; a user who is not in a mapping has that of inference alone.
    """

    def __init__(self, scopes: ScopesOf | None = None) -> None:
        self._scopes = {} if scopes is None else scopes

    def requestAvatar(
        self, avatarId: bytes | tuple[()], mind: object, *interfaces: object
    ) -> tuple[type[Interface], ModelUser, Callable[[], None]]:
        """
        Return the user with a name.

        :raise NotImplementedError: unless `IModelUser` is asked for.
        :raise LoginDenied: for an anonymous user, and for a name that is not UTF-8.
        """
        if IModelUser not in interfaces:
            raise NotImplementedError("this realm has users of models only")
        if not avatarId:
            raise LoginDenied("anonymous")
        try:
            name = avatarId.decode() if isinstance(avatarId, bytes) else str(avatarId)
        except UnicodeDecodeError:
            raise LoginDenied("a name that is not UTF-8") from None
        scopes: Collection[TokenKind]
        if isinstance(self._scopes, Mapping):
            scopes = self._scopes.get(name, _INFERENCE)
        else:
            scopes = self._scopes(name)
        return _USER, ModelUser(name, scopes), lambda: None


# An interface is no class, but `twisted.cred` is annotated as if it were one.
_USER = cast("type[Interface]", IModelUser)


def _is_realm_name(_instance: object, _attribute: object, value: str) -> None:
    if not value.isascii() or not value.isprintable() or '"' in value or "\\" in value or not value:
        raise ValueError(f"a realm must have a name of printable ASCII characters without quotes, not {value!r}")


@implementer(IAuthorizer)
@frozen
class PortalAuthorizer:
    """
    Admits the users of a portal.

    A request without Basic credentials, with several, or with wrong ones, is refused with 401; one that its user may
    not make, with 403.

    :ivar portal: Checks `IUsernamePassword <twisted.cred.credentials.IUsernamePassword>`.
    :ivar realm: The name of the realm in the challenge, which browsers show.
    :raise ValueError: for a name that cannot be sent.
    """

    portal: Portal
    realm: str = field(default="twisted_serve", validator=_is_realm_name)

    async def authorize(self, asked: AccessRequest) -> Principal | Refusal:
        """Return the user who has sent a request, or a refusal."""
        credentials = basic_credentials(asked.authorization)
        if credentials is None:
            return self._challenge()
        try:
            _interface, avatar, logout = await self.portal.login(credentials, None, _USER)
        except LoginDenied:
            return Refusal(403)
        except Unauthorized:
            return self._challenge()
        user = cast("ModelUser", avatar)
        try:
            return Principal(user.name) if user.may(asked) is True else Refusal(403)
        finally:
            # A request is a session.
            logout()

    def _challenge(self) -> Refusal:
        return Refusal(
            401, f'Basic realm="{self.realm}", charset="UTF-8"', "User name or password is missing or wrong."
        )


def basic_credentials(authorization: Sequence[bytes]) -> UsernamePassword | None:
    """
    Return the user name and password of the only ``Authorization`` header (RFC 7617); ``None`` if there are none.

    :param authorization: The values of all ``Authorization`` headers.
    """
    if len(authorization) != 1:
        return None
    scheme, _, encoded = authorization[0].partition(b" ")
    encoded = encoded.strip(b" ")
    if scheme.lower() != b"basic" or len(encoded) > _LONGEST:
        return None
    try:
        name, colon, password = b64decode(encoded, validate=True).partition(b":")
    except NotBase64:
        return None
    if not colon or not name:
        return None
    return UsernamePassword(name, password)
