-- What the provider stopped for a while stays written until one message was taken, and that message is claimed: many workers
-- send by one account or template, and one of them tries.

alter table postrider.pause
  -- When a worker was given the message that tries; null while none was. Another one gets it when nothing came of it.
  add column probed_at timestamptz;
