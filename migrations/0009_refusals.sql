-- What the functions refuse, each with its SQLSTATE of class PR, a sentence and a hint: all of them in one place, because
-- enqueue raises what enqueue_many returns as a row.

-- The sentence and the hint of a refusal. `subject` is what was refused, or what is wrong with it.
create function postrider.refusal(code text, subject text, out sentence text, out hint text)
language plpgsql immutable
as $$
begin
  case code
    when 'PR001' then
      sentence := format('the recipient %s is neither a phone number in E.164 form nor a business-scoped id',
                         case when subject is null then 'is missing: null' else postrider.mask(subject) end);
      hint := 'Write phone numbers with + and country code and without blanks, for example +905321234567.';
    when 'PR002' then
      sentence := format('the kind %L is not configured', subject);
      hint := 'Use one of those in postrider.kind, add it to the configuration, or leave it null for the default.';
    when 'PR003' then
      sentence := format('the priority %L is not known', subject);
      hint := 'Use urgent, normal or bulk, or leave it null for the kind''s own.';
    when 'PR004' then
      sentence := format('the sender %L has no configured number', subject);
      hint := 'Use one of those in postrider.sender_pool, add its numbers to the configuration, or leave it null for the default.';
    when 'PR005' then
      sentence := subject;
      hint := 'expires_at must lie ahead and after not_before, and both within ten years; leave them null for the kind''s default.';
    when 'PR006' then
      sentence := subject;
      hint := 'Parameters look like {"body": ["Ada", "#1042"]}, a free-form message like {"type": "text", "text": {"body": "…"}}, jobs like [{"recipient": "+…", "template": "…"}].';
    when 'PR007' then
      sentence := format('the idempotency key was used for job %s with other content', subject);
      hint := 'Use a key of its own for every notification, and the same content when you repeat one.';
    when 'PR008' then
      sentence := 'the template''s name is empty';
      hint := 'Name an approved template, or use enqueue_message for a free-form message.';
    when 'PR009' then
      sentence := format('the language %L is not a language code', subject);
      hint := 'Write it like en or en_US, or leave it null for the recipient''s own.';
    when 'PR010' then
      sentence := subject;
      hint := 'reference, batch and idempotency_key hold 1 to 512 characters, parameters and labels 64 KiB.';
    when 'PR011' then
      sentence := format('the time %s lies in the future', subject);
      hint := 'Give the time when the person said so, or leave it null for now.';
    when 'PR012' then
      sentence := 'the source of the consent is empty';
      hint := 'Say where the person said so, for example checkout, import or support; it is the evidence that is asked for.';
    when 'PR013' then
      sentence := format('cancel does not work under transaction isolation %s', subject);
      hint := 'Call it in a READ COMMITTED transaction: it must see attempts that committed while it waited.';
  end case;
end
$$;

-- Raises a refusal.
create function postrider.refuse(code text, subject text) returns void
language plpgsql
as $$
declare
  said record;
begin
  said := postrider.refusal(code, subject);
  raise exception using errcode = code, message = said.sentence, hint = said.hint;
end
$$;
